#!/usr/bin/env bash
#
# docs.sh [PAGE...]: types what the documents tell the reader to type, and compares what comes with what they say.
#
# In a Markdown page a session is all blocks that begin with ```console, in a manual page all .Bd -literal displays that
# have a line beginning with "$ ". In them a line with "$ " in front is typed, "> " continues it, and what follows is what
# the reader should see; "..." stands for anything, on a line of its own for some lines. Runs of spaces count as one.
# All sessions of a page run in one shell, in a copy of the tree (with what was built), with /dev/shm and the
# kernel's IPC namespace of their own, and `usysv` on the path as if installed. Blocks with another language are not typed.
#
# Beside that: links between the documents lead somewhere, the options in usysv(1) are those of `usysv COMMAND --help`,
# pictures can be rendered. Ends with "docs: N passed, N failed, N skipped".

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# shellcheck source=c-tests/count.sh
. c-tests/count.sh

# A /dev/shm that nobody else uses: the documents use the default directory.
if [ -z "${USYSV_DOCS_INSIDE:-}" ]; then
    for how in 'unshare --mount --ipc' 'unshare --user --map-root-user --mount --ipc'; do
        # shellcheck disable=SC2086 # words
        if $how mount -t tmpfs none /dev/shm 2>/dev/null; then
            USYSV_DOCS_INSIDE=1 exec $how "$0" "$@"
        fi
    done
    USYSV_DOCS_INSIDE=no
else
    mount -t tmpfs -o mode=1777 none /dev/shm
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/usysv-docs.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

pages=("$@")
[ ${#pages[@]} -gt 0 ] || mapfile -t pages < <(ls -- *.md docs/*.md man/*.[1-8])

# --- what is to be typed -----------------------------------------------------------------------------------------------

# session PAGE: "$ ...", "> ..." and what should come, of all blocks.
session() {
    case $1 in
    *.md) awk '/^```console$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$1" ;;
    *) awk '
        /^\.Bd -literal/ { inside = 1; typed = 0; text = ""; next }
        /^\.Ed/ { if (typed) printf "%s", text; inside = 0 }
        inside { if (/^\$ /) typed = 1; gsub(/\\-/, "-"); gsub(/\\e/, "\\"); text = text $0 "\n" }' "$1" ;;
    esac
}

show() { printf '%s\n' "$1" | sed 's/^/    /'; }

# squeeze: runs of blanks as one, none at the ends of lines, no empty lines.
squeeze() { sed -e 's/[[:space:]]\+/ /g' -e 's/^ //' -e 's/ $//' -e '/^$/d'; }

# as_pattern TEXT: matches itself; "..." matches anything.
as_pattern() { sed -e 's/[][\\*?]/\\&/g' -e 's/\.\.\./*/g' <<<"$1"; }

# sources: what a clone has, and what is new.
sources() {
    git ls-files -coz --exclude-standard 2>/dev/null ||
        find . -type f -not -path './target/*' -not -path './c-tests/build/*' -print0
}

try_page() {
    local page=$1 script=$work/script out=$work/out line number=0 tree status=0
    local -a command=() expected=()
    while IFS= read -r line; do
        case $line in
        '$ '*)
            command+=("${line#'$ '}")
            expected+=('')
            ;;
        '> '*) command[-1]+=$'\n'${line#> } ;;
        '>') command[-1]+=$'\n' ;;
        *) [ ${#expected[@]} = 0 ] || expected[-1]+=$line$'\n' ;;
        esac
    done < <(session "$page")
    [ ${#command[@]} -gt 0 ] || return 0
    if [ "$USYSV_DOCS_INSIDE" = no ]; then
        skip "$page: no mount namespace, so no /dev/shm of its own"
        return 0
    fi

    tree=$work/tree
    mkdir "$tree"
    sources | xargs -0 cp --parents -t "$tree" 2>/dev/null || true
    ln -s "$target" "$tree/target"
    ln -s "$root/c-tests/build" "$tree/c-tests/build"
    for number in "${!command[@]}"; do
        printf 'printf "\\n@@%d@@\\n"\n%s\n' "$number" "${command[number]}"
    done >"$script"
    # shellcheck disable=SC2016 # the session's own variable
    (cd "$tree" && env -i PATH="$target/release:$PATH" HOME="$tree" TERM=dumb LC_ALL=C \
        timeout -k 2 90 bash --norc "$script") >"$out" 2>&1 </dev/null || status=$?
    for number in "${!command[@]}"; do
        local came wanted pattern
        came=$(awk -v n="@@$number@@" '/^@@[0-9]+@@$/ { on = $0 == n; next } on' "$out" | squeeze)
        wanted=$(squeeze <<<"${expected[number]}")
        pattern=$(as_pattern "$wanted")
        # shellcheck disable=SC2053 # a pattern
        if [[ $came == $pattern ]]; then
            ok "$page: ${command[number]%%$'\n'*}"
        else
            bad "$page: ${command[number]}"
            echo '  the page says:'
            show "$wanted"
            echo "  what came (status of the session $status):"
            show "$came"
        fi
    done
    rm -rf "$tree"
}
for page in "${pages[@]}"; do
    try_page "$page"
done
if [ $# -gt 0 ]; then
    totals docs
    exit
fi

# --- links -----------------------------------------------------------------------------------------------------------

# anchors PAGE: the headings, as forges turn them into anchors.
anchors() { sed -n 's/^#\+ //p' "$1" | tr '[:upper:]' '[:lower:]' | sed -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'; }
for page in *.md docs/*.md; do
    broken=''
    while IFS= read -r link; do
        case $link in
        *://* | '') continue ;;
        esac
        file=${link%%#*}
        file=$(dirname "$page")/${file:-$(basename "$page")}
        if [ ! -e "$file" ]; then
            broken+=" $link"
        elif [[ $link == *#* ]] && ! anchors "$file" | grep -qxF "${link#*#}"; then
            broken+=" $link"
        fi
    done < <(awk '/^```/ { code = !code } !code' "$page" | grep -oE '\]\([^) ]+\)|src="[^"]+"' | sed -E 's/^\]\(|\)$|^src="|"$//g')
    if [ -z "$broken" ]; then
        ok "$page: every link within the tree leads somewhere"
    else
        bad "$page: dead links:$broken"
    fi
done

# --- the manual page of the tool and the tool ------------------------------------------------------------------------

tool=$target/release/usysv
commands=$("$tool" --help | awk '/^Commands:/ { on = 1; next } /^$/ { on = 0 } on { print $1 }' | grep -v '^help$')
for command in $commands; do
    # Long options, but those that every command has.
    has=$("$tool" "$command" --help | sed -nE 's/^ +(-[a-zA-Z], )?(--[a-z-]+).*/\2/p' | sed -e '/^--help$/d' -e '/^--dir$/d' | sort -u)
    says=$(awk -v c="$command" '/^\.S[sh] / { on = $2 == c } on' man/usysv.1 | sed -n '/^\.It /p' | { grep -oE 'Fl -[a-z-]+' || true; } |
        sed 's/^Fl -/--/' | sort -u)
    if [ "$has" = "$says" ]; then
        ok "usysv(1) has the options of usysv $command"
    else
        bad "usysv(1) and usysv $command --help disagree"
        diff <(echo "$says") <(echo "$has") | sed 's/^/    /' || true
    fi
done

# --- environment variables -------------------------------------------------------------------------------------------

mapfile -t variables < <(grep -rhoE 'c"USYSV_[A-Z_]+"' src --include='*.rs' --exclude-dir=user | grep -oE 'USYSV_[A-Z_]+' | sort -u)
for variable in "${variables[@]}"; do
    if grep -q "Ev.*$variable" man/usysv.7; then
        ok "usysv(7) explains $variable"
    else
        bad "usysv(7) does not explain $variable"
    fi
done

# --- pictures --------------------------------------------------------------------------------------------------------

for picture in docs/*.svg; do
    if ! command -v rsvg-convert >/dev/null; then
        skip "no rsvg-convert: $picture is not rendered"
    elif rsvg-convert "$picture" -o "$work/picture.png" 2>"$work/log" && [ -s "$work/picture.png" ] && [ ! -s "$work/log" ]; then
        ok "$picture can be rendered"
    else
        bad "$picture: $(cat "$work/log")"
    fi
done

totals docs
