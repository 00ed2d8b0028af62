"""Sources around sources: what they do not change is that of the wrapped one."""

import inspect

import pytest
from toy_sources import Numbers

from lightning_priors.callbacks.predictions import NamesFiles
from lightning_priors.data.sources import ClusteredLabels, Kakapo, RandomLabels, RandomSubClasses, RawSample, Source
from lightning_priors.data.sources.wrapper import AddedTasks, SourceWrapper

WRAPPERS = [SourceWrapper, RandomLabels, RandomSubClasses, ClusteredLabels]


class NamedNumbers(Numbers):
    """Numbers whose images are files."""

    def file(self, index: int) -> str:
        return f"{index}.png"


def test_every_member_of_a_source_is_forwarded() -> None:
    members = {name for name in vars(Source) if not name.startswith("_")}
    assert members == {name for name in vars(SourceWrapper) if not name.startswith("_")}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_the_rest_is_that_of_the_source(wrap: type[SourceWrapper]) -> None:
    inner = NamedNumbers()
    source = wrap(inner)
    source.prepare_data()
    assert inner.prepared
    for name in ("classes", "group_names", "part_names", "keypoint_names"):
        assert getattr(source, name) == getattr(inner, name)
    for split in ("train", "val", "test"):
        assert source.indices(split) == inner.indices(split)
    assert [source.label(index) for index in range(10)] == [inner.label(index) for index in range(10)]
    assert isinstance(source, NamesFiles)
    assert source.file(7) == "7.png"
    assert source.aux_classes["digit"] == inner.aux_classes["digit"]


def test_images_are_files_only_where_the_source_says_so() -> None:
    assert SourceWrapper(Kakapo()).file(3) == Kakapo().file(3) == ""


def test_the_sample_of_the_source_stays_as_it_is() -> None:
    class Kept(Numbers):
        def __init__(self) -> None:
            super().__init__()
            self.samples: dict[int, RawSample] = {}

        def load(self, index: int) -> RawSample:
            return self.samples.setdefault(index, super().load(index))

    source = RandomSubClasses(Kept())
    source.setup()
    assert source.load(3)["aux_labels"] == source.load(3)["aux_labels"]
    assert len(source.source.load(3)["aux_labels"]) == 2


def test_added_tasks_must_say_what_they_add() -> None:
    assert inspect.isabstract(AddedTasks)
    assert not inspect.isabstract(SourceWrapper)
