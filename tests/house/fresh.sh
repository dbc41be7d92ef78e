#!/usr/bin/env bash
# Makes a minimal Debian in a folder, clones this tree into it, and runs the README's two commands there.
# The machine's package sources and certificates come along; nothing else does. Needs root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then
    echo "make fresh builds a chroot: run it as root" >&2
    exit 1
fi
command -v debootstrap > /dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap > /dev/null; }
root=$(mktemp -d "${TMPDIR:-/tmp}/sojourn-fresh.XXXXXX")
chmod 755 "$root"  # it becomes "/": other users pass through it
leave() {
    for place in proc dev sys ""; do mountpoint -q "$root/$place" && umount -l "$root/$place"; done
    rm -rf --one-file-system "$root"
}
trap leave EXIT

mount --bind "$root" "$root" && mount --make-private "$root"  # a root that is no mount point can't be unshared
mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {print $2; exit}' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2> /dev/null | head -1)
debootstrap --variant=minbase bookworm "$root" "${mirror:-http://deb.debian.org/debian}" > "$root.log" 2>&1 || { tail -5 "$root.log"; exit 1; }
rm -f "$root.log"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev" && mount --make-rslave "$root/dev"
mount --rbind /sys "$root/sys" && mount --make-rslave "$root/sys"  # with the cgroups, in which tests make some of their own
cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2> /dev/null || true
cp /etc/hosts "$root/etc/hosts"
cp -r /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/"
# Its folder becomes "/" of a mount namespace, as on a machine: whoever enters that namespace later finds the same root.
inside() {
    unshare --mount --propagation private sh -c '
        cd "$1" && shift && mkdir -p old && pivot_root . old && cd / && umount -l /old
        exec /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CI=true "$@"' sh "$root" "$@"
}

inside apt-get update -qq
inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates make python3-venv git > /dev/null
cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"  # after the package, which writes its own
[ -e /etc/pip.conf ] && cp /etc/pip.conf "$root/etc/pip.conf"

git clone -q . "$root/root/sojourn"
inside sh -c 'cd /root/sojourn && make run'
inside sh -c 'cd /root/sojourn && make test'
echo "fresh: both commands passed in a minimal Debian"
