"""One data module for every source: images with their labels and priors as dense batches."""
