"""The Flower app: carries what lies in exchange folders between a researcher and domains, and reads none of it.

Flower ships this folder to every SuperNode and runs it there, in Flower's own environment. So it needs Flower and
Python's standard library only, imports its own modules relatively, and works on folders without a key or a note in
them: whoever may start runs at a SuperLink chooses the code that SuperNodes run.
"""
