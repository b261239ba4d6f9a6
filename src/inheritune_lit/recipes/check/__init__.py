"""What is wrong with a recipe, all of it at once."""
