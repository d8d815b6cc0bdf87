"""What a run of ``compress`` will take, before anybody pays for it.

Comes in: the arguments of ``compress``, and what the run shall fit: hours, cores, machines. Goes out: an ``Estimate``,
stage by stage. A child process does all of a run that comes before its trainings, takes some steps of both, cuts,
proves and writes once, and ends with all that it wrote. What other machines take follows from that by ``scaling``.
"""
