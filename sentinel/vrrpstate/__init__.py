"""What keepalived says of itself: its notify FIFO, its JSON dump, and its processes.

Only what is said is told here, when and by whom; whether it is true is judged by the vrrp check.
"""
