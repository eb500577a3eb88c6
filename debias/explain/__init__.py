"""What a network looks at: the loss gradient of an image by each branch, and images made for a class."""
