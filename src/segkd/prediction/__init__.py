"""What networks say of images, shown: frames from a file or a camera, through networks, as pictures, to a folder or a film."""
