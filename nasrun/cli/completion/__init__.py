"""Tab completion: what may follow on a command line, for bash, zsh and fish.

Each key press starts ``nasrun completion candidates``; it imports neither Hydra nor torch, and
says nothing but candidates, whatever happens.
"""
