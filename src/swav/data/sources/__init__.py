"""What a set of pictures is: opened from DATA, listed, decoded."""
