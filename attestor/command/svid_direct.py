"""sojourn svid direct: an identity by a platform's token, kept in files; no node agent."""

from __future__ import annotations

from pathlib import Path

import click

from ca.runtime.terminal import Console, command_options


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--server", required=True, metavar="URL", help="The attestor server's public address, https://host:port.")
@click.option("--trust-domain", required=True, help="Whose server it must be.")
@click.option(
    "--trust-bundle",
    required=True,
    type=click.Path(path_type=Path),
    help="By what it is known: PEM certificates, or a SPIFFE bundle.",
)
@click.option("--method", type=click.Choice(["k8s_token", "oidc"]), default="k8s_token", show_default=True)
@click.option("--platform", required=True, help="The cluster or issuer, as the server's settings call it.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    default=Path("/var/run/secrets/sojourn/token"),
    show_default=True,
    help="The platform's token; read anew each time.",
)
@click.option("--once", is_flag=True, help="Write once and end.")
@command_options
async def direct(
    *,
    console: Console,
    folder: Path,
    server: str,
    trust_domain: str,
    trust_bundle: Path,
    method: str,
    platform: str,
    token_file: Path,
    once: bool,
) -> None:
    """Keep svid.pem, key.pem and bundle.pem in FOLDER/current fresh by the token of a pod or CI job.

    For places without a node agent: the server has the platform vouch for the token each time.

    Example: sojourn svid direct /run/svid --server https://attestor:8444 --trust-domain example.org
    --trust-bundle /run/sojourn/bundle.pem --platform prod
    """
    from attestor.client.direct import DirectServer, PlatformToken, open_direct
    from attestor.client.files import SvidFiles
    from attestor.client.keeping import Written, keep_files
    from ca.spiffe.id import TrustDomain

    domain = TrustDomain.parse(trust_domain)
    token = PlatformToken(method=method, platform=platform, token_file=token_file)
    where = DirectServer(server, domain, trust_bundle)

    async def told(new: Written) -> None:
        _written(console, new.folder)

    async with open_direct(where, token, waiting=console.error) as source:
        if not once:
            await keep_files(source, SvidFiles(folder), told=told)
            return
        bundle = source.bundles.get(domain)
        assert bundle is not None, "the source is ready"
        _written(console, SvidFiles(folder).write(source.svid, bundle))


def _written(console: Console, folder: Path) -> None:
    console.result({"folder": str(folder)}, "written  ", str(folder))
