"""Small images (CIFAR, MNIST, Tiny-ImageNet) with convolutional networks."""
