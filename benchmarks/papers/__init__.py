"""What a paper, its code or a closed form says, beside what genpipe finds.

Each is a command, `python -m benchmarks.papers.NAME`. A figure's published value has the same
name with `_published` behind it; where a formula gives it, `_closed_form`.
"""
