"""A release of several commits that fails between any two of them: the repetition goes on, and makes nothing twice."""

import pytest
from huggingface_hub import HfApi

from dataset_builder.errors import BadInputError
from dataset_builder.publishing import release
from dataset_builder.publishing.publish import publish
from tests.dataset_builder.tiny_build import make_rows, write_build

REPO = "org/flavour-sd"


@pytest.mark.parametrize("is_made", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failure_at_any_commit_leaves_no_tag_and_the_same_call_goes_on(
    failing, is_made, connected_hub, tmp_path, monkeypatch
):
    monkeypatch.setattr(release, "FILES_PER_COMMIT", 2)
    build = write_build(tmp_path / "build", make_rows())
    create, calls = HfApi.create_commit, []

    def fail(self, *given, **more):
        calls.append(more["commit_message"])
        made = create(self, *given, **more) if len(calls) != failing or is_made else None
        if len(calls) == failing:
            raise ConnectionError("the connection broke")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "create_commit", fail)
        with pytest.raises(BadInputError, match="it carries no tag, repeat the command"):
            publish(build, REPO, "1.0.0", "cc-by-4.0")
    api = HfApi()
    assert not api.list_repo_refs(REPO, repo_type="dataset").tags
    publish(build, REPO, "1.0.0", "cc-by-4.0")
    commits = api.list_repo_commits(REPO, repo_type="dataset")
    assert [one.title for one in commits][:-1] == [f"Version 1.0.0, {number}/3" for number in (3, 2, 1)]
    (tag,) = api.list_repo_refs(REPO, repo_type="dataset").tags
    assert (tag.name, tag.target_commit) == ("v1.0.0", commits[0].commit_id)
