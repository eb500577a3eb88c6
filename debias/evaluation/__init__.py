"""What a trained network does: its answers, its shape bias, its accuracy under attack."""
