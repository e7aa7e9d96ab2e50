//! The committed header: is it what the source says, and does every compiler we care about take it?
//!
//! `make header` (this test with `USYSV_HEADER=write`) copies the generated header to `include/usysv.h`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/usysv.h"));
const FLAGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"];

fn include_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

/// A program that needs every name the header promises. Assigning each function to a pointer of the type that
/// the C library documents fails to compile if the prototype is another one.
fn program(includes: &str) -> String {
    format!(
        r#"{includes}
static int (*get)(key_t, int) = msgget;
static int (*snd)(int, const void *, size_t, int) = msgsnd;
static ssize_t (*rcv)(int, void *, size_t, long, int) = msgrcv;
static int (*ctl)(int, int, struct msqid_ds *) = msgctl;
static int (*version)(void) = usysv_version;
static unsigned (*features)(void) = usysv_features;

#if USYSV_VERSION_NUMBER < 100 || USYSV_FEATURE_PRELOAD != 1 || USYSV_FEATURE_HANDOFF != 2 \
    || USYSV_FEATURE_MSG_COPY != 4
#error "constants"
#endif
#if MSG_NOERROR != 010000 || MSG_EXCEPT != 020000 || MSG_COPY != 040000 \
    || MSG_STAT != 11 || MSG_INFO != 12 || MSG_STAT_ANY != 13
#error "Linux's own flags and commands"
#endif

int main(void)
{{
    struct msqid_ds info;
    struct {{ long type; char text[4]; }} message = {{ 1, "abc" }};
    int id = get((key_t)-1, IPC_CREAT | 0600);

    if (snd(id, &message, sizeof message.text, IPC_NOWAIT) != 0)
        return 1;
    if (rcv(id, &message, sizeof message.text, 0, MSG_NOERROR) != (ssize_t)sizeof message.text)
        return 2;
    if (ctl(id, IPC_STAT, &info) != 0 || info.msg_qnum != 0)
        return 3;
    return version() == USYSV_VERSION_NUMBER && (features() & USYSV_FEATURE_PRELOAD) ? 0 : 4;
}}
"#
    )
}

/// `Some(version line)` if the compiler is installed.
fn present(compiler: &str) -> Option<String> {
    let output = Command::new(compiler).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().to_owned())
}

/// Compiles the program in each of its forms under each standard; returns how many compilations that were.
fn compile(compiler: &str, language: &str, standards: &[&str], define: &[&str]) -> usize {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let forms = [
        ("alone", "#include \"usysv.h\""),
        ("after", "#include <sys/msg.h>\n#include \"usysv.h\""),
        ("before", "#include \"usysv.h\"\n#include <sys/msg.h>"),
        ("twice", "#include \"usysv.h\"\n#include \"usysv.h\""),
    ];
    let mut done = 0;
    for standard in standards {
        for (form, includes) in forms {
            let source = dir.join(format!("header-{compiler}-{standard}-{form}.{language}"));
            fs::write(&source, program(includes)).expect("target/tmp can be written");
            let output = Command::new(compiler)
                .arg(format!("-std={standard}"))
                .args(FLAGS)
                .args(define)
                .arg("-I")
                .arg(include_dir())
                .arg(&source)
                .output()
                .expect("the compiler runs: it told its version");
            assert!(
                output.status.success(),
                "{compiler} -std={standard}, the header {form} {define:?}:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            done += 1;
        }
    }
    done
}

/// Says so, loudly, where a compiler is missing; one of the two must be there.
fn compile_with_each(compilers: [&str; 2], language: &str, standards: &[&str]) {
    let mut done = 0;
    for compiler in compilers {
        if let Some(version) = present(compiler) {
            let here = compile(compiler, language, standards, &[])
                + compile(compiler, language, standards, &["-D_GNU_SOURCE"])
                + compile(compiler, language, standards, &["-U_GNU_SOURCE", "-D_XOPEN_SOURCE=700"]);
            println!("{here} compilations by {version}");
            done += here;
        } else {
            // Straight to the terminal: what print! says is hidden while the test passes.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: no {compiler}");
        }
    }
    assert!(done > 0, "neither of {compilers:?} is installed, nothing was checked");
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = include_dir().join("usysv.h");
    if std::env::var_os("USYSV_HEADER").is_some_and(|wish| wish == "write") {
        fs::write(&path, GENERATED).expect("include/usysv.h can be written");
    }
    let committed = fs::read_to_string(&path).expect("include/usysv.h is committed");
    assert!(committed == GENERATED, "include/usysv.h is stale: run `make header` and commit the result");
}

#[test]
fn c_compilers_take_the_header() {
    compile_with_each(["gcc", "clang"], "c", &["c99", "c11"]);
}

#[test]
fn cpp_compilers_take_the_header() {
    compile_with_each(["g++", "clang++"], "cpp", &["c++17", "c++11"]);
}
