"""Small networks with random weights, really exported by each framework, and the scripts that export them."""
