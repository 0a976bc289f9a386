"""What is left when no value, place or label tells: the weights, attention, or what either computes with."""
