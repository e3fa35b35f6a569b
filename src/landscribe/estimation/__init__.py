"""Reference samples and their files, and estimates of accuracy and area by the design that drew them."""
