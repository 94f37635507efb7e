"""What is drawn of a picture, and the views that are made of it."""
