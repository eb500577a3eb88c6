"""From files to batches: listing, scan, sampler, the two engines, and `image_loader` over them."""
