"""What the layers of a network see over inputs."""
