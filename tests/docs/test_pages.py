"""Every page, followed from its first block to its last in a project of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from example_project.postgres import PostgresCluster
from tests.docs.conftest import OpenPage
from tests.docs.pages import Block, blocks, pages

#: Blocks that no machine but the reader's can run. Each is a claim nobody checks, so there are few.
MOST_NOT_RUN: Final = 4


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages() if any(blocks(page))], ids=lambda page: page.stem)
def test_what_a_page_says_is_so(page: Path, open_page: OpenPage, docs_cluster: PostgresCluster) -> None:
    with open_page(page) as reader:
        for block in blocks(page):
            if not block.not_run and block.since <= int(docs_cluster.config.version):
                reader.follow(block)
        reader.finish()


def test_every_block_has_a_language() -> None:
    assert [str(block) for block in _all() if not block.language] == []


def test_every_fence_is_seen() -> None:
    fences = sum(line.lstrip().startswith(("```", "~~~")) for page in pages() for line in page.read_text().splitlines())
    assert fences == 2 * len(_all())


def test_what_is_not_run_is_little_and_says_why() -> None:
    not_run = [block for block in _all() if block.not_run]
    assert all(len(block.not_run.split()) > 3 for block in not_run), "a reason has more words"
    assert len(not_run) <= MOST_NOT_RUN, "\n".join(f"{block}: {block.not_run}" for block in not_run)


def test_no_comment_is_misspelt() -> None:
    known = ("not run: ", "exit ", "since PostgreSQL ", "background")
    assert [str(block) for block in _all() if block.comment and not block.comment.startswith(known)] == []


def _all() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]
