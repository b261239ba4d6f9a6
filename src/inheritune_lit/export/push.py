"""An exported folder on the Hugging Face hub, by huggingface_hub's own upload."""

from pathlib import Path

from inheritune_lit.base.errors import InheritError
from inheritune_lit.checkpoint.folder import RECEIPT
from inheritune_lit.checkpoint.receipt import read_receipt


def upload(folder: Path, name: str) -> None:
    """Uploads what the folder's receipt lists, the receipt and the card to a model that is made if it is not there.

    Raises:
        InheritError: there is no token, or the hub can't be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from requests import RequestException

    api, files = HfApi(library_name="inheritune_lit"), [*read_receipt(folder)["files"], RECEIPT, "README.md"]
    try:
        model = api.create_repo(name, exist_ok=True).repo_id
        commit = api.upload_folder(repo_id=model, folder_path=folder, allow_patterns=files, commit_message="export")
    except (HfHubHTTPError, OfflineModeIsEnabled, RequestException, ValueError) as error:
        reply = getattr(error, "response", None)
        status = None if reply is None else reply.status_code
        hints = {None: "Is there a network?", 401: "Log in anew: `hf auth login`.", 403: "May the token write there?"}
        raise InheritError(
            f"{folder} is whole, but not on the hub as {name}: {str(error).strip()} {hints.get(status, '')} Mend that "
            "and give the command again: it will only upload."
        ) from error
    print(f"Uploaded {folder} to {commit.repo_url} as {commit.oid[:12]}")
