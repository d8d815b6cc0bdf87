"""What milliseconds a network takes without some of its units: measured for some plans, told of all others by them."""
