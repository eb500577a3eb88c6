"""`debias build-stylized`: what a stylised set consists of, its files, its manifest, and the builder."""
