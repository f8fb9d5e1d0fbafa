#!/bin/sh
# Makes testflow/debian:12, a small Debian from the package mirror that this machine's apt uses, for machines that reach
# no image registry. The other images here build on it. Debian with debootstrap, as root; about half a minute.
#
#   deploy/images/debian.sh [TAG]
set -eu
tag=${1:-testflow/debian:12}
release=bookworm
for need in debootstrap docker tar; do
	command -v "$need" >/dev/null || { echo "deploy/images: needs $need: apt-get install debootstrap docker.io" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "deploy/images: debootstrap needs root" >&2; exit 2; }

# The mirror that apt is set up with, so that no host is written here.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $release" | head -n 1)
[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 130' INT TERM
debootstrap --variant=minbase --include=ca-certificates "$release" "$root" $mirror >"$root.log" 2>&1 ||
	{ tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
# What apt needs to go on inside is kept: the sources of this machine, security updates among them.
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
mkdir -p "$root/usr/share/man/man1" "$root/usr/share/man/man7"
rm -f "$root/etc/apt/sources.list"
cp -a /etc/apt/sources.list* "$root/etc/apt/"
# Whom this machine trusts: its package mirrors may stand behind a certificate of their own.
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
tar -C "$root" --numeric-owner -c . | docker import --change 'CMD ["sh"]' - "$tag" >/dev/null
echo "$tag"
