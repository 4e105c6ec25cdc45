"""Figures that are there are not drawn again, unless what they show has changed or they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgf.support.figures import draw_once


@pytest.mark.parametrize("suffix", [".png", ".svg", ".gif"])
def test_a_figure_is_drawn_again_only_where_something_changed(tmp_path: Path, suffix: str) -> None:
    image = pytest.importorskip("PIL.Image")
    file, drawn = tmp_path / f"figure{suffix}", []

    def draw(numbers: list[int]) -> None:
        drawn.append(list(numbers))
        if suffix == ".svg":
            file.write_text('<svg xmlns="http://www.w3.org/2000/svg"><g/></svg>\n')
        else:
            image.new("RGB", (4, 3), (1, 2, numbers[0])).save(file)

    def once(numbers: list[int]) -> int:
        before = len(drawn)
        draw_once([file], draw, (numbers,), numbers)
        return len(drawn) - before

    assert [once([1]), once([1]), once([2]), once([2]), once([1]), once([1])] == [1, 0, 1, 0, 1, 0]
    whole = file.read_bytes()
    if suffix != ".svg":
        with image.open(file) as picture:
            picture.load()
            assert picture.size == (4, 3)
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"x"):
        file.write_bytes(damaged)
        assert once([1]) == 1
        assert file.read_bytes() == whole
    for place in (10, len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert once([1]) == 1
    file.unlink()
    assert once([1]) == 1
    assert once([1]) == 0
