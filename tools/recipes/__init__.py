"""The tables that the shipped recipes are rendered from; no part of the package. `make recipes` renders them anew."""
