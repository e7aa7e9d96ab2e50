#!/usr/bin/env bash
#
# deb.sh DIRECTORY: makes DIRECTORY/usysv_VERSION_ARCH.deb out of what was built. `make deb` calls it.
#
# One package for all: library, header, tool, manual pages. Debian itself would make three of it; who installs from
# here wants one file.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$1
version=$(sed -n 's/^version *= *"\(.*\)".*/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)
multiarch=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
stage=$out/deb
control=$stage/DEBIAN
rm -rf "$stage" "$out/deb-debian"
umask 022

# Everything in the package has the time of the last commit, so that the same sources give the same package.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH=$epoch
date=$(LC_ALL=C date -u -R -d "@$epoch")
maintainer='The usysv developers <usysv@localhost.invalid>'

make --no-print-directory install DESTDIR="$stage" PREFIX=/usr LIBDIR="/usr/lib/$multiarch" >/dev/null
library=$stage/usr/lib/$multiarch/libusysv.so.$version
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$library"
[ ! -f "$stage/usr/bin/usysv" ] || strip --strip-unneeded --remove-section=.comment --remove-section=.note "$stage/usr/bin/usysv"
find "$stage/usr/share/man" -type f -exec gzip -9n {} +

doc=$stage/usr/share/doc/usysv
mkdir -p "$doc" "$stage/usr/share/lintian/overrides" "$control"
cp packaging/deb/copyright "$doc/copyright"
# The documents link to each other: they stay as they are.
cp README.md SECURITY.md CONTRIBUTING.md "$doc/"
gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
cp -R docs "$doc/docs"
printf 'usysv (%s-1) unstable; urgency=medium\n\n  * Built from the sources; see changelog.gz for what changed.\n\n -- %s  %s\n' \
    "$version" "$maintainer" "$date" | gzip -9n >"$doc/changelog.Debian.gz"
cp packaging/deb/lintian-overrides "$stage/usr/share/lintian/overrides/usysv"

# What the binaries need, as dpkg-shlibdeps reads it from their symbols.
mkdir -p "$out/deb-debian/debian"
printf 'Source: usysv\n\nPackage: usysv\nArchitecture: any\n' >"$out/deb-debian/debian/control"
binaries=("$(realpath "$library")")
[ ! -f "$stage/usr/bin/usysv" ] || binaries+=("$(realpath "$stage/usr/bin/usysv")")
depends=$(cd "$out/deb-debian" && dpkg-shlibdeps -O --ignore-missing-info "${binaries[@]}" 2>/dev/null | sed -n 's/^shlibs:Depends=//p')

{
    echo "Package: usysv"
    echo "Version: $version-1"
    echo "Architecture: $architecture"
    echo "Maintainer: $maintainer"
    echo "Installed-Size: $(du -k -s --apparent-size "$stage/usr" | cut -f 1)"
    echo "Depends: $depends"
    cat packaging/deb/control
} >"$control/control"
echo "activate-noawait ldconfig" >"$control/triggers"
echo "libusysv ${version%%.*} usysv (>= $version)" >"$control/shlibs"
(cd "$stage" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$control/md5sums"
find "$stage" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +

rm -f "$out"/usysv_*.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$out/usysv_$version-1_$architecture.deb"
rm -rf "$stage" "$out/deb-debian"
