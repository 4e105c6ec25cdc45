"""How fast training is, beside other people's code and beside what the machine could do.

work.py         the sizes of one update; trace.py notes the equations and products that its
                method calls, and limits.py adds them up
worker.py       a process that works when it is told to and sleeps when not (standard library only)
ours.py, peers.py, roofs.py     what is timed in such processes: our training, other people's
                from a checkout, and bare matrix products and copies
interleave.py   processes side by side, short timed blocks in turn, ratios round by round
training.py     the whole comparison; profile.py where the time of one update goes
"""
