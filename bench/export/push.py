"""Puts the folder of a ticket on the hub."""

import tempfile
from pathlib import Path
from typing import Any

from bench.errors import BenchError, first_line
from bench.export.folder import export
from bench.export.parity import Parity
from bench.export.ticket import TrainedTicket


def push(
    ticket: TrainedTicket, repository: str, form: str = "hf", private: bool = False, api: Any = None
) -> tuple[str, list[Parity]]:
    """Export the ticket and upload its folder to ``repository`` (user/name), which is made where there is none. ``api``: a
    ``huggingface_hub.HfApi``. Returns the address and how the forms compare."""
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise BenchError(f"{repository} is no repository of the hub: give user/name")
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "ticket"
        parities = export(ticket, folder, form)
        try:
            address = api.create_repo(repository, private=private, exist_ok=True, repo_type="model")
            api.upload_folder(
                repo_id=repository, folder_path=folder, repo_type="model", commit_message=f"Ticket {ticket.record.id}"
            )
        except Exception as error:  # the client raises many types: no network, no login, not allowed
            raise BenchError(
                f"the hub did not take {repository} ({first_line(error)}): log in with `hf auth login`, or go online"
            ) from None
    return str(address), parities
