"""The command line: one module per command, the options they share, and the boundary to the shell.

A command declares its options and translates them into typed objects; nothing below it knows argparse. Modules here
import nothing heavy at the top: ``--help`` answers at once, and arguments are checked before torch is loaded.
"""
