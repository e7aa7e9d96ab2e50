#!/usr/bin/env bash
#
# in_a_copy.sh WORK CONSUMER: called by package.sh in a mount namespace of its own. Lays a tmpfs over this system, so that
# every change goes to memory and nobody outside sees it, and there installs WORK/usysv.deb as an administrator would,
# uses it, removes it, and compares what is left. Status 77 if no such copy can be made.

set -euo pipefail
if [ "$1" != --inside ]; then
    work=$1
    mount --make-rprivate / && mkdir "$work/over" && mount -t tmpfs -o size=512m none "$work/over" || exit 77
    mkdir "$work"/over/{upper,scratch,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/over/upper,workdir=$work/over/scratch" "$work/over/root" || exit 77
    copy=$work/over/root
    mount -t proc proc "$copy/proc"
    mount --rbind /dev "$copy/dev"
    # What lay on other file systems is not seen through the overlay.
    mkdir -p "$copy/opt/usysv-test"
    cp "$work/usysv.deb" "$work/nosysv" "${BASH_SOURCE[0]}" "$2"/app.c "$copy/opt/usysv-test/"
    mount -t tmpfs -o mode=1777 none "$copy/tmp"
    exec chroot "$copy" env -i PATH="$PATH" LC_ALL=C /opt/usysv-test/in_a_copy.sh --inside
fi

cd /opt/usysv-test
failed=0
check() { # WHAT EXPECTED GOT
    if [ "$2" = "$3" ]; then
        echo "ok deb: $1"
    else
        echo "FAIL deb: $1: expected '$2', got '$3'"
        failed=1
    fi
}
tree() { find /usr /etc /lib /bin -xdev ! -type d ! -path '/etc/ld.so.cache' 2>/dev/null | sort; }
mkdir /tmp/queues
export USYSV_DIR=/tmp/queues

tree >/tmp/before
check 'dpkg --install' 0 "$(dpkg -i usysv.deb >/tmp/log 2>&1; echo $?)"
check 'dpkg says it is installed' 'install ok installed' "$(dpkg-query -W -f '${Status}' usysv)"
check 'nothing in it was changed on the way' '' "$(dpkg -V usysv 2>&1)"
check 'the dynamic linker knows it' 1 "$(ldconfig -p | grep -c 'libusysv.so.0 ')"
check 'a program finds header and library without being told' 0 "$(cc app.c -lusysv -o app >/tmp/log 2>&1; echo $?)"
check 'and runs' 'through C, preload 1' "$(./nosysv ./app 2>&1)"
if command -v ipcmk >/dev/null; then
    check 'the library can be preloaded by its bare name' 1 \
        "$(./nosysv env LD_PRELOAD=libusysv.so.0 ipcmk -Q 2>&1 | grep -c 'Message queue id: ')"
fi
if command -v man >/dev/null; then
    check 'man 7 usysv' 1 "$(man -P cat 7 usysv 2>/dev/null | grep -c '^NAME')"
fi
check 'dpkg --purge' 0 "$(dpkg -P usysv >/tmp/log 2>&1; echo $?)"
tree >/tmp/after
check 'nothing is left' '' "$(diff /tmp/before /tmp/after | grep '^>' | grep -v -e /opt/usysv-test || true)"
exit "$failed"
