"""Does the node still find what it found before? Site QA with a phantom, through the route that studies take."""
