//! `/proc/sysvipc/msg` and the limits in `/proc/sys/kernel`, as files.
//!
//! `ipcs` and `lsipc` read them, `sysctl` and test suites write them. So these stand before the functions of the
//! C library by which programs open files or ask about them. They let the next definition do its work *first*,
//! and look at the name afterwards: then a name that cannot be read has been answered with `EFAULT`, by who
//! knows, and one that can be is compared. For every other name the result is passed on; that costs about
//! twenty instructions.
//!
//! | a program opens                  | and is given                                                         |
//! |----------------------------------|----------------------------------------------------------------------|
//! | `/proc/sysvipc/msg`              | a file without a name, with the table as of now                      |
//! | a limit, to read                 | the same, with its value                                             |
//! | a limit, to write, or both       | the namespace's own file of it; what is written acts at once         |
//!
//! The descriptor is the program's own. Who may do what is as in the kernel: everybody may read, root may write.
//! Where the kernel has no System V IPC, the files are there all the same, for `access` and `stat` too.
//!
//! # What differs from the kernel's files
//! - Who keeps one open and reads it again reads the old contents.
//! - A number that the kernel refuses is not refused (`EINVAL`) when it is written, but ignored. What is written to
//!   `/proc/sysvipc/msg` is lost.
//! - A limit that is open for reading *and* writing shows blanks before its value. A limit that was never set
//!   shows no value there; and opening one so sets it to what it was.
//! - `fstat` says that it is a file of some length, of some file system; the kernel's say 0.
//! - A name is compared as it is written: `/proc//sysvipc/msg`, or `msg` in the directory `/proc/sysvipc`, or what a
//!   link points to, is the kernel's. So is what `freopen`, `creat`, `io_uring` or a system call opens.
//!
//! # Invariants
//! 1. No frame of Rust is on the stack while the C library opens a file, since that is a cancellation point.
//! 2. `errno` is what the next definition left, unless the answer is ours; a success leaves it as it was before.
//! 3. Nothing allocates, but `fopen`, which does anyway; `open` can be used in signal handlers as ever.
//!
//! Only on x86-64 and aarch64; elsewhere these are the C library's.

use crate::abi::user::{self, Good};
use crate::namespace::directory;
use crate::namespace::limits::{self as stated, Limit};
use crate::os::credentials;
use crate::os::errno::{self, Errno};
use crate::os::file::{self, Fd};
use crate::os::raw::call;
use crate::semantics::{limits, table};
use core::ffi::CStr;
use core::fmt::Write;
use core::ptr;
use libc::{FILE, c_char, c_int, c_uint, c_void, mode_t};

/// A file of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum File {
    Table,
    Limit(Limit),
}

impl File {
    const ALL: [(&'static CStr, File); 5] = [
        (c"/proc/sysvipc/msg", File::Table),
        (c"/proc/sys/kernel/msgmax", File::Limit(Limit::Msgmax)),
        (c"/proc/sys/kernel/msgmnb", File::Limit(Limit::Msgmnb)),
        (c"/proc/sys/kernel/msgmni", File::Limit(Limit::Msgmni)),
        (c"/proc/sys/kernel/msg_next_id", File::Limit(Limit::NextId)),
    ];

    /// Which file a name is that of.
    ///
    /// # Safety
    /// The name must be a C string.
    unsafe fn named(name: *const c_char) -> Option<File> {
        // One character after the other: what lies behind its end may not be there.
        // SAFETY: the caller's promise.
        let is = |name_of_ours: &CStr| unsafe { libc::strcmp(name, name_of_ours.as_ptr()) } == 0;
        File::ALL.iter().find(|(name_of_ours, _)| is(name_of_ours)).map(|&(_, file)| file)
    }

    fn mode(self) -> u32 {
        match self {
            File::Table | File::Limit(Limit::NextId) => 0o444,
            File::Limit(_) => 0o644,
        }
    }

    /// Whether the caller may write it: all of them are root's.
    fn may_write() -> bool {
        credentials::euid() == 0
    }

    /// What `open` does.
    fn open(self, flags: c_int) -> Result<Fd, Errno> {
        if flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL {
            return Err(Errno::EEXIST);
        }
        if flags & libc::O_DIRECTORY != 0 {
            return Err(Errno(libc::ENOTDIR));
        }
        let how = flags & libc::O_ACCMODE;
        if how != libc::O_RDONLY && !File::may_write() {
            return Err(Errno::EACCES);
        }
        let close_on_exec = flags & libc::O_CLOEXEC != 0;
        if let (File::Limit(limit), true) = (self, how != libc::O_RDONLY) {
            let shown = if how == libc::O_WRONLY { None } else { shown(limit) };
            let fd = stated::open_to_write(limit, shown)?;
            if !close_on_exec {
                file::keep_on_exec(&fd)?;
            }
            return Ok(fd);
        }
        let fd = file::nameless(directory(), close_on_exec)?;
        match self {
            File::Table => table::write(&mut |piece| file::write(&fd, piece))?,
            File::Limit(limit) => {
                let mut text = Text { bytes: [0; 24], length: 0 };
                let _ = match shown(limit) {
                    Some(value) => writeln!(text, "{value}"),
                    None => writeln!(text, "-1"),
                };
                file::write(&fd, text.bytes.get(..text.length).unwrap_or_default())?;
            }
        }
        file::rewind(&fd)?;
        Ok(fd)
    }
}

/// What a limit's file shows.
fn shown(limit: Limit) -> Option<u64> {
    match limit {
        Limit::Msgmax => Some(limits::msgmax()),
        Limit::Msgmnb => Some(limits::msgmnb()),
        Limit::Msgmni => Some(limits::msgmni().into()),
        Limit::NextId => stated::stated(limit),
    }
}

struct Text {
    bytes: [u8; 24],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let place = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(core::fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Whether the next definition could not even read the name.
fn name_is_bad() -> bool {
    errno::get() == Errno::EFAULT
}

fn failure(errno: Errno) -> isize {
    errno::set(errno);
    -1
}

/// What the next definition was called with; what the assembly fills.
#[repr(C)]
pub struct Given {
    arguments: [usize; 4],
    errno: c_int,
}

/// After the next definition opened a file, or failed to: what to return instead.
unsafe fn after_opening(given: &Given, name: usize, flags: usize, result: isize) -> isize {
    if result < 0 && name_is_bad() {
        return result;
    }
    // SAFETY: the kernel has read the name, or the C library.
    let Some(ours) = (unsafe { File::named(ptr::with_exposed_provenance(name)) }) else { return result };
    let opened = ours.open(flags as c_int).and_then(|fd| match result {
        ..0 => Ok(fd.keep() as isize),
        // The number stays: it was the lowest that was free.
        number => file::replace(fd, number as c_int).map(|()| number),
    });
    match opened {
        Ok(number) => {
            errno::set(Errno(given.errno));
            number
        }
        Err(errno) => {
            if result >= 0 {
                file::close(result as c_int);
            }
            failure(errno)
        }
    }
}

unsafe extern "C" fn after_open(given: *const Given, result: isize) -> isize {
    // SAFETY: the assembly below passes its own frame.
    let given = unsafe { &*given };
    let [name, flags, ..] = given.arguments;
    // SAFETY: these are the arguments of `open`.
    unsafe { after_opening(given, name, flags, result) }
}

unsafe extern "C" fn after_openat(given: *const Given, result: isize) -> isize {
    // SAFETY: the assembly below passes its own frame.
    let given = unsafe { &*given };
    let [_, name, flags, _] = given.arguments;
    // SAFETY: these are the arguments of `openat`.
    unsafe { after_opening(given, name, flags, result) }
}

/// The flags of open(2) in the mode of fopen(3), and a mode that fits a descriptor that is at its beginning.
fn mode_of_stream(mode: &[u8]) -> (c_int, &'static CStr) {
    let rest = mode.get(1..).unwrap_or_default();
    let rest = rest.split(|&byte| byte == b',').next().unwrap_or_default();
    let update = rest.contains(&b'+');
    let (how, mode) = match (mode.first(), update) {
        (Some(b'r'), false) => (libc::O_RDONLY, c"r"),
        (Some(b'r'), true) => (libc::O_RDWR, c"r+"),
        (_, false) => (libc::O_WRONLY | libc::O_CREAT, c"w"),
        (_, true) => (libc::O_RDWR | libc::O_CREAT, c"w+"),
    };
    let also = |letter, flag| if rest.contains(&letter) { flag } else { 0 };
    (how | also(b'e', libc::O_CLOEXEC) | also(b'x', libc::O_EXCL), mode)
}

unsafe extern "C" fn after_fopen(given: *const Given, result: isize) -> isize {
    // SAFETY: the assembly below passes its own frame.
    let given = unsafe { &*given };
    let [name, mode, ..] = given.arguments;
    let stream: *mut FILE = ptr::with_exposed_provenance_mut(result as usize);
    if stream.is_null() && name_is_bad() {
        return result;
    }
    // SAFETY: the kernel has read the name; or the C library refused the mode, before it looked at the name.
    let ours = unsafe { file_of_stream(name, mode) };
    let Some((ours, flags, mode)) = ours else { return result };
    let opened = ours.open(flags).and_then(|fd| {
        if stream.is_null() {
            // SAFETY: the descriptor is open and the mode fits it.
            let made = unsafe { libc::fdopen(fd.number(), mode.as_ptr()) };
            if made.is_null() {
                return Err(errno::get());
            }
            fd.keep();
            return Ok(made);
        }
        // SAFETY: the C library has just made the stream.
        file::replace(fd, unsafe { libc::fileno(stream) })?;
        Ok(stream)
    });
    match opened {
        Ok(stream) => {
            errno::set(Errno(given.errno));
            stream.expose_provenance() as isize
        }
        Err(errno) => {
            if !stream.is_null() {
                // SAFETY: nobody else has the stream; nothing was read or written.
                unsafe { libc::fclose(stream) };
            }
            errno::set(errno);
            0
        }
    }
}

/// # Safety
/// `mode` must be a C string, and `name` too if it can be read.
unsafe fn file_of_stream(name: usize, mode: usize) -> Option<(File, c_int, &'static CStr)> {
    // SAFETY: the caller's promise.
    let mode = unsafe { CStr::from_ptr(ptr::with_exposed_provenance(mode)) }.to_bytes();
    if !matches!(mode.first(), Some(b'r' | b'w' | b'a')) {
        return None;
    }
    // SAFETY: with such a mode the name has been looked at.
    let ours = unsafe { File::named(ptr::with_exposed_provenance(name)) }?;
    let (flags, mode) = mode_of_stream(mode);
    Some((ours, flags, mode))
}

// What is done while there is no next definition: the C library's own system call.

fn returned(result: Result<libc::c_long, Errno>) -> c_int {
    result.map_or_else(|errno| failure(errno) as c_int, |result| result as c_int)
}

unsafe extern "C" fn instead_of_open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the kernel checks the name.
    returned(unsafe { call!(libc::SYS_openat, libc::AT_FDCWD, name, flags, mode) })
}

unsafe extern "C" fn instead_of_openat(at: c_int, name: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the kernel checks the name.
    returned(unsafe { call!(libc::SYS_openat, at, name, flags, mode) })
}

unsafe extern "C" fn instead_of_fopen(_: *const c_char, _: *const c_char) -> *mut FILE {
    errno::set(Errno::ENOSYS);
    ptr::null_mut()
}

/// Defines the functions that open files. The assembly keeps the arguments, calls the next definition, and
/// afterwards, if that failed or the name may be one of ours, `$after`.
macro_rules! opens {
    ($(
        fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty
        { name $place:literal; $kind:tt; then $after:ident; without $instead:ident }
    )*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, with our files in `/proc`. ")]
            #[doc = "cbindgen:ignore"]
            ///
            /// # Safety
            /// What the real function asks for.
            #[unsafe(no_mangle)]
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                passing!($place; $kind; opening::$name::NEXT; opening::$name::resolve; $after)
            }
        )*

        mod opening {
            $(
                pub mod $name {
                    use crate::interpose::next::{Next, terminated};

                    // SAFETY: see `Next`.
                    #[unsafe(link_section = ".data.usysv")]
                    pub static NEXT: Next = Next::new();

                    /// The next definition, or what to do without.
                    pub extern "C" fn resolve() -> *mut libc::c_void {
                        let found = NEXT.find(const { terminated(concat!(stringify!($name), "\0")) });
                        if found.is_null() { super::super::$instead as *mut libc::c_void } else { found }
                    }
                }
            )*

            #[inline(always)]
            pub fn prepare() {
                $($name::resolve();)*
            }
        }
    };
}

/// The body of [`opens`].
#[cfg(target_arch = "x86_64")]
macro_rules! passing {
    ($place:literal; int; $($rest:tt)*) => {
        passing!($place; "test eax, eax", "js 3f", "movsxd rsi, eax"; $($rest)*)
    };
    ($place:literal; pointer; $($rest:tt)*) => {
        passing!($place; "test rax, rax", "je 3f", "mov rsi, rax"; $($rest)*)
    };
    ($place:literal; $test:literal, $failed:literal, $result:literal; $next:path; $resolve:path; $after:ident) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "sub rsp, 56",
            ".cfi_adjust_cfa_offset 56",
            "mov [rsp], rdi",
            "mov [rsp + 8], rsi",
            "mov [rsp + 16], rdx",
            "mov [rsp + 24], rcx",
            "call [rip + {errno}@GOTPCREL]",
            "mov eax, [rax]",
            "mov [rsp + 32], eax",
            "mov rax, [rip + {next}]",
            "test rax, rax",
            "je 4f",
            "2:",
            "mov rdi, [rsp]",
            "mov rsi, [rsp + 8]",
            "mov rdx, [rsp + 16]",
            "mov rcx, [rsp + 24]",
            "call rax",
            $test,
            $failed,
            // The kernel could read the name. "/p"?
            concat!("mov rcx, [rsp + 8 * ", $place, "]"),
            "cmp byte ptr [rcx], 0x2f",
            "jne 5f",
            "cmp byte ptr [rcx + 1], 0x70",
            "jne 5f",
            "3:",
            "mov rdi, rsp",
            $result,
            "call {after}",
            "5:",
            "add rsp, 56",
            ".cfi_adjust_cfa_offset -56",
            "ret",
            ".cfi_adjust_cfa_offset 56",
            "4:",
            "call {resolve}",
            "jmp 2b",
            ".cfi_endproc",
            errno = sym libc::__errno_location,
            next = sym $next,
            resolve = sym $resolve,
            after = sym $after,
        )
    };
}

/// The body of [`opens`].
#[cfg(target_arch = "aarch64")]
macro_rules! passing {
    ($place:literal; int; $($rest:tt)*) => {
        passing!($place; "tbnz w0, #31, 3f", "", "sxtw x1, w0"; $($rest)*)
    };
    ($place:literal; pointer; $($rest:tt)*) => {
        passing!($place; "cbz x0, 3f", "", "mov x1, x0"; $($rest)*)
    };
    ($place:literal; $test:literal, $failed:literal, $result:literal; $next:path; $resolve:path; $after:ident) => {
        core::arch::naked_asm!(
            ".cfi_startproc",
            "stp x29, x30, [sp, #-64]!",
            ".cfi_def_cfa_offset 64",
            ".cfi_offset x29, -64",
            ".cfi_offset x30, -56",
            "stp x0, x1, [sp, #16]",
            "stp x2, x3, [sp, #32]",
            "bl {errno}",
            "ldr w0, [x0]",
            "str w0, [sp, #48]",
            "adrp x16, {next}",
            "ldr x16, [x16, :lo12:{next}]",
            "cbz x16, 4f",
            "2:",
            "ldp x0, x1, [sp, #16]",
            "ldp x2, x3, [sp, #32]",
            "blr x16",
            $test,
            $failed,
            // The kernel could read the name. "/p"?
            concat!("ldr x9, [sp, #16 + 8 * ", $place, "]"),
            "ldrb w10, [x9]",
            "cmp w10, #0x2f",
            "b.ne 5f",
            "ldrb w10, [x9, #1]",
            "cmp w10, #0x70",
            "b.ne 5f",
            "3:",
            $result,
            "add x0, sp, #16",
            "bl {after}",
            "5:",
            ".cfi_remember_state",
            "ldp x29, x30, [sp], #64",
            ".cfi_def_cfa_offset 0",
            ".cfi_restore x29",
            ".cfi_restore x30",
            "ret",
            ".cfi_restore_state",
            "4:",
            "bl {resolve}",
            "mov x16, x0",
            "b 2b",
            ".cfi_endproc",
            errno = sym libc::__errno_location,
            next = sym $next,
            resolve = sym $resolve,
            after = sym $after,
        )
    };
}

opens! {
    fn open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int
    { name 0; int; then after_open; without instead_of_open }
    fn open64(name: *const c_char, flags: c_int, mode: mode_t) -> c_int
    { name 0; int; then after_open; without instead_of_open }
    fn __open_2(name: *const c_char, flags: c_int) -> c_int
    { name 0; int; then after_open; without instead_of_open }
    fn __open64_2(name: *const c_char, flags: c_int) -> c_int
    { name 0; int; then after_open; without instead_of_open }
    fn openat(at: c_int, name: *const c_char, flags: c_int, mode: mode_t) -> c_int
    { name 1; int; then after_openat; without instead_of_openat }
    fn openat64(at: c_int, name: *const c_char, flags: c_int, mode: mode_t) -> c_int
    { name 1; int; then after_openat; without instead_of_openat }
    fn __openat_2(at: c_int, name: *const c_char, flags: c_int) -> c_int
    { name 1; int; then after_openat; without instead_of_openat }
    fn __openat64_2(at: c_int, name: *const c_char, flags: c_int) -> c_int
    { name 1; int; then after_openat; without instead_of_openat }
    fn fopen(name: *const c_char, mode: *const c_char) -> *mut FILE
    { name 0; pointer; then after_fopen; without instead_of_fopen }
    fn fopen64(name: *const c_char, mode: *const c_char) -> *mut FILE
    { name 0; pointer; then after_fopen; without instead_of_fopen }
}

/// What `access` and its like answer for a file that the kernel does not have.
fn permitted(_: File, wanted: c_int) -> Result<(), Errno> {
    let denied = wanted & libc::X_OK != 0 || (wanted & libc::W_OK != 0 && !File::may_write());
    if denied { Err(Errno::EACCES) } else { Ok(()) }
}

/// What `stat` and its like answer for a file that the kernel does not have.
fn described(file: File, to: *mut libc::stat) -> Result<(), Errno> {
    // SAFETY: integers all of them: zero is a value.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    let now = crate::os::clock::seconds() as i64;
    stat.st_mode = libc::S_IFREG | file.mode();
    (stat.st_nlink, stat.st_ino, stat.st_blksize) = (1, 1, 1024);
    (stat.st_atime, stat.st_mtime, stat.st_ctime) = (now, now, now);
    // SAFETY: `user` checks the caller's address; the structure is that long.
    unsafe { user::copy_out(to.cast(), (&raw const stat).cast(), size_of::<libc::stat>(), Good::NONE) }?;
    Ok(())
}

fn described_at_length(file: File, to: *mut libc::statx) -> Result<(), Errno> {
    // SAFETY: integers all of them: zero is a value.
    let mut stat: libc::statx = unsafe { core::mem::zeroed() };
    stat.stx_mask = libc::STATX_BASIC_STATS;
    stat.stx_mode = (libc::S_IFREG | file.mode()) as u16;
    (stat.stx_nlink, stat.stx_ino, stat.stx_blksize) = (1, 1, 1024);
    let now = crate::os::clock::seconds() as i64;
    (stat.stx_atime.tv_sec, stat.stx_mtime.tv_sec, stat.stx_ctime.tv_sec) = (now, now, now);
    // SAFETY: `user` checks the caller's address; the structure is that long.
    unsafe { user::copy_out(to.cast(), (&raw const stat).cast(), size_of::<libc::statx>(), Good::NONE) }?;
    Ok(())
}

/// Defines the functions that ask about a name. Where the kernel has the file its answer is right.
macro_rules! asks {
    ($(
        fn $function:ident($($argument:ident: $type:ty),*)
        { $path:ident; then $answer:expr; without $($number:ident)::+ ($($given:expr),*) }
    )*) => {
        $(
            #[doc = concat!("`", stringify!($function), "` of the C library, with our files in `/proc`. ")]
            #[doc = "cbindgen:ignore"]
            ///
            /// # Safety
            /// What the real function asks for.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $function($($argument: $type),*) -> c_int {
                let before = errno::get();
                let address = asking::$function::find();
                let result = if address.is_null() {
                    // SAFETY: the caller's promise.
                    returned(unsafe { call!($($number)::+ $(, $given)*) })
                } else {
                    type Real = unsafe extern "C" fn($($type),*) -> c_int;
                    // SAFETY: the C library's function of this name has this signature.
                    let real = unsafe { core::mem::transmute::<*mut c_void, Real>(address) };
                    // SAFETY: the caller's promise.
                    unsafe { real($($argument),*) }
                };
                if result == 0 || errno::get() != Errno::ENOENT {
                    return result;
                }
                // SAFETY: who says that there is no such file has read the name.
                let Some(file) = (unsafe { File::named($path) }) else { return result };
                let answer: fn(File, $($type),*) -> Result<(), Errno> = $answer;
                match answer(file, $($argument),*) {
                    Ok(()) => {
                        errno::set(before);
                        0
                    }
                    Err(errno) => failure(errno) as c_int,
                }
            }
        )*

        mod asking {
            $(
                pub mod $function {
                    use crate::interpose::next::{Next, terminated};

                    pub fn find() -> *mut libc::c_void {
                        // SAFETY: see `Next`.
                        #[unsafe(link_section = ".data.usysv")]
                        static NEXT: Next = Next::new();
                        NEXT.find(const { terminated(concat!(stringify!($function), "\0")) })
                    }
                }
            )*

            #[inline(always)]
            pub fn prepare() {
                $($function::find();)*
            }
        }
    };
}

asks! {
    fn access(name: *const c_char, wanted: c_int)
    { name; then |file, _, wanted| permitted(file, wanted); without libc::SYS_faccessat(libc::AT_FDCWD, name, wanted) }
    fn euidaccess(name: *const c_char, wanted: c_int)
    { name; then |file, _, wanted| permitted(file, wanted); without libc::SYS_faccessat(libc::AT_FDCWD, name, wanted) }
    fn eaccess(name: *const c_char, wanted: c_int)
    { name; then |file, _, wanted| permitted(file, wanted); without libc::SYS_faccessat(libc::AT_FDCWD, name, wanted) }
    fn faccessat(at: c_int, name: *const c_char, wanted: c_int, flags: c_int)
    { name; then |file, _, _, wanted, _| permitted(file, wanted); without libc::SYS_faccessat2(at, name, wanted, flags) }
    fn stat(name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, to| described(file, to); without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, 0) }
    fn stat64(name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, to| described(file, to); without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, 0) }
    fn lstat(name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, to| described(file, to);
      without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, libc::AT_SYMLINK_NOFOLLOW) }
    fn lstat64(name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, to| described(file, to);
      without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, libc::AT_SYMLINK_NOFOLLOW) }
    fn fstatat(at: c_int, name: *const c_char, to: *mut libc::stat, flags: c_int)
    { name; then |file, _, _, to, _| described(file, to); without libc::SYS_newfstatat(at, name, to, flags) }
    fn fstatat64(at: c_int, name: *const c_char, to: *mut libc::stat, flags: c_int)
    { name; then |file, _, _, to, _| described(file, to); without libc::SYS_newfstatat(at, name, to, flags) }
    fn __xstat(_version: c_int, name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, _, to| described(file, to); without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, 0) }
    fn __xstat64(_version: c_int, name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, _, to| described(file, to); without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, 0) }
    fn __lxstat(_version: c_int, name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, _, to| described(file, to);
      without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, libc::AT_SYMLINK_NOFOLLOW) }
    fn __lxstat64(_version: c_int, name: *const c_char, to: *mut libc::stat)
    { name; then |file, _, _, to| described(file, to);
      without libc::SYS_newfstatat(libc::AT_FDCWD, name, to, libc::AT_SYMLINK_NOFOLLOW) }
    fn __fxstatat(_version: c_int, at: c_int, name: *const c_char, to: *mut libc::stat, flags: c_int)
    { name; then |file, _, _, _, to, _| described(file, to); without libc::SYS_newfstatat(at, name, to, flags) }
    fn __fxstatat64(_version: c_int, at: c_int, name: *const c_char, to: *mut libc::stat, flags: c_int)
    { name; then |file, _, _, _, to, _| described(file, to); without libc::SYS_newfstatat(at, name, to, flags) }
    fn statx(at: c_int, name: *const c_char, flags: c_int, mask: c_uint, to: *mut libc::statx)
    { name; then |file, _, _, _, _, to| described_at_length(file, to);
      without libc::SYS_statx(at, name, flags, mask, to) }
}

/// Looks the next definitions up.
#[inline(always)]
pub fn prepare() {
    opening::prepare();
    asking::prepare();
}
