"""A server of S3 on this machine, for tests: moto's, in this process, with all objects in memory."""

import logging
import urllib.request
from types import TracebackType

import fsspec
from moto.server import ThreadedMotoServer

SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAOFATESTONLY", "AWS_SECRET_ACCESS_KEY": "secret-of-a-test-only"}


class ObjectStore:
    """Runs while the block runs; `environment` is what a program needs to find it."""

    def __enter__(self) -> "ObjectStore":
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print every request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        url = f"http://localhost:{self._server.get_host_and_port()[1]}"  # a name, as other stores have
        request = urllib.request.Request(f"{url}/moto-api/reset", method="POST")
        urllib.request.urlopen(request, timeout=30).close()  # the objects outlive the server that they came by
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # one of them knows the server before
        self.environment = {**SECRETS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    def bucket(self, name: str) -> str:
        """A new bucket's name."""
        self.files().mkdir(name)
        return name

    def files(self) -> fsspec.AbstractFileSystem:
        """The objects, as fsspec shows them."""
        given = self.environment
        return fsspec.filesystem(
            "s3",
            key=given["AWS_ACCESS_KEY_ID"],
            secret=given["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=given["AWS_ENDPOINT_URL"],
            use_listings_cache=False,
            skip_instance_cache=True,
        )
