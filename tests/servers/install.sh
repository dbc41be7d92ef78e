#!/bin/sh
# Brings the Debian packages of packages.txt. Nothing starts by itself: no service, no cluster.
set -eu
here=$(dirname "$0")
missing=""
for package in $(cat "$here/packages.txt"); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
line="apt-get install -y --no-install-recommends$missing"
if [ "$(id -u)" != 0 ]; then
    echo "the tests drive real servers that are not here; as root, run: $line" >&2
    exit 1
fi
ours=""
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    ours=yes
fi
mkdir -p /etc/postgresql-common/createcluster.d
[ -e /etc/postgresql-common/createcluster.d/sojourn.conf ] ||
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/sojourn.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
$line -qq -o APT::Keep-Downloaded-Packages=false > /dev/null
[ -z "$ours" ] || rm -f /usr/sbin/policy-rc.d
