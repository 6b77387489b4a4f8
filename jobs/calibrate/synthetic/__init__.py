"""Synthetic activations with a known answer: do intervals cover, is the mean right, what raises an alarm.

`plans` says what is planted, `running` draws and scores it (with the headline's own functions), `table` and `figure`
show it.
"""
