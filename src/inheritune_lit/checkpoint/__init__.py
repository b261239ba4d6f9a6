"""A litGPT checkpoint folder: its files, its weights, its receipt, and opening it as a model."""
