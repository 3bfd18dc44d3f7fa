/* Loaded before libc (LD_PRELOAD): counts what a process changes below a folder, in whatever
   language it is written, and lets the n-th such call die or fail. `tests/test_faults.py` builds
   it, and calls `fault_arm` in each process that is to be interrupted. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OTHER, FREES, WRITES };  /* a full disk can still be freed; a write can be torn */
enum { PASS, FAIL, HALF };

static char root[PATH_MAX];
static long at;
static int number;  /* errno, or 0 to be killed */
static volatile long *seen;

void fault_arm(const char *folder, long which, int error, long *count) {
    snprintf(root, sizeof root, "%s", folder);
    at = which;
    number = error;
    seen = count;
}

static int below(const char *path) {
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int is_below(int folder, const char *path) {
    return path[0] == '/' || folder == AT_FDCWD ? below(path) : fd_below(folder);
}

/* What becomes of a call. */
static int fate(int kind) {
    long now = __atomic_add_fetch(seen, 1, __ATOMIC_SEQ_CST);
    if (at <= 0 || now < at) return PASS;
    if (now > at && (number != ENOSPC || kind == FREES)) return PASS;
    if (!number && kind != WRITES) kill(getpid(), SIGKILL), pause();
    if (now == at && kind == WRITES && number != EIO) return HALF;
    errno = number;
    return FAIL;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A call that is let through, or fails with -1. */
#define CALL(test, kind, arguments) \
    do { \
        if (seen && (test) && fate(kind) != PASS) return -1; \
        return real arguments; \
    } while (0)

/* The same for one that may do half of its `count`; a process to be killed dies then. */
#define TORN(test, count, arguments) \
    do { \
        if (seen && (test)) { \
            int what = fate(WRITES); \
            if (what == FAIL || (what == HALF && number && (count) < 2)) \
                return errno = number, -1; \
            if (what == HALF) { \
                count /= 2; \
                long done = count ? (long)real arguments : 0; \
                if (!number) kill(getpid(), SIGKILL), pause(); \
                return done; \
            } \
        } \
        return real arguments; \
    } while (0)

#define OPENING (O_WRONLY | O_RDWR | O_CREAT)
#define MODE() \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE() REAL(name); \
        CALL((flags & OPENING) && below(path), OTHER, (path, flags, mode)); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE() REAL(name); \
        CALL((flags & OPENING) && is_below(folder, path), OTHER, (folder, path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

#define TWO(name) \
    int name(const char *from, const char *to) { \
        REAL(name); \
        CALL(below(from) || below(to), OTHER, (from, to)); \
    }
TWO(rename)
TWO(link)
TWO(symlink)

int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    CALL(is_below(a, from) || is_below(b, to), OTHER, (a, from, b, to));
}

int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(renameat2);
    CALL(is_below(a, from) || is_below(b, to), OTHER, (a, from, b, to, flags));
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(linkat);
    CALL(is_below(a, from) || is_below(b, to), OTHER, (a, from, b, to, flags));
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    CALL(below(path), OTHER, (path, mode));
}

int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(mkdirat);
    CALL(is_below(folder, path), OTHER, (folder, path, mode));
}

int unlink(const char *path) {
    REAL(unlink);
    CALL(below(path), FREES, (path));
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    CALL(is_below(folder, path), FREES, (folder, path, flags));
}

int rmdir(const char *path) {
    REAL(rmdir);
    CALL(below(path), FREES, (path));
}

#define ONE(name) \
    int name(int fd) { \
        REAL(name); \
        CALL(fd_below(fd), OTHER, (fd)); \
    }
ONE(fsync)
ONE(fdatasync)

#define SIZED(name, type) \
    int name(int fd, type size) { \
        REAL(name); \
        CALL(fd_below(fd), OTHER, (fd, size)); \
    }
SIZED(ftruncate, off_t)
SIZED(ftruncate64, off64_t)

ssize_t write(int fd, const void *data, size_t count) {
    REAL(write);
    TORN(fd_below(fd), count, (fd, data, count));
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    REAL(pwrite);
    TORN(fd_below(fd), count, (fd, data, count, offset));
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    REAL(pwrite64);
    TORN(fd_below(fd), count, (fd, data, count, offset));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    TORN(fd_below(fd), count, (fd, parts, count));
}

ssize_t sendfile(int fd, int from, off_t *offset, size_t count) {
    static ssize_t (*real)(int, int, off_t *, size_t);
    if (!real) real = (ssize_t(*)(int, int, off_t *, size_t))dlsym(RTLD_NEXT, "sendfile");
    TORN(fd_below(fd), count, (fd, from, offset, count));
}

ssize_t sendfile64(int fd, int from, off64_t *offset, size_t count) {
    static ssize_t (*real)(int, int, off64_t *, size_t);
    if (!real) real = (ssize_t(*)(int, int, off64_t *, size_t))dlsym(RTLD_NEXT, "sendfile64");
    TORN(fd_below(fd), count, (fd, from, offset, count));
}

ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t count, unsigned flags) {
    REAL(copy_file_range);
    TORN(fd_below(fd), count, (from, a, fd, b, count, flags));
}
