"""ImageNet and folders of images with convolutional networks."""
