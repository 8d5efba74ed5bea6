"""Speed on this machine: comparisons, reasons for missing speed-ups, latency tables, and efficient channel
multiples.
"""
