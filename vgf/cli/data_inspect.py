"""`vgf data inspect`: look at a data set."""


def main(words: list[str]) -> int:
    return 0
