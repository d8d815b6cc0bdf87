"""The one table of what is known of every operator, asked by every room.

Comes in: declarations, each beside the code it is about: a rule says what an operator is and how its labels run, a
lowering how to write it in others for training. Goes out: an ``Operator`` with all of it.
Does not know: models, graphs, anything above.
"""
