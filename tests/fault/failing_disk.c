/* A disk that fails: preloaded into a process and all that it starts, it counts every call that writes below a folder, and
   lets one of them fail, or all from one on, until it is told that the disk is mended. What to do lies in a file that all
   these processes have mapped (see failing_disk.py), named by FAILING_DISK; without it nothing is changed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
    int64_t at;      /* The first call that fails; 0: none. */
    int64_t count;   /* Calls so far. */
    int32_t error;   /* What they fail with. */
    int32_t lasting; /* Whether all later ones fail as well. */
    int32_t torn;    /* Whether half of what was to be written is written all the same. */
    int32_t mended;
    int32_t failed; /* Calls that have failed. */
    int32_t unused;
    char folder[1024];
    char what[1024]; /* The first that failed. */
};

static struct control *control;
static char mapped[1024];

static struct control *now(void)
{
    const char *path = getenv("FAILING_DISK");
    if (!path || !*path)
        return NULL;
    if (control && !strcmp(path, mapped))
        return control;
    static int (*real_open)(const char *, int, ...);
    if (!real_open)
        real_open = dlsym(RTLD_NEXT, "open64");
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return NULL;
    strncpy(mapped, path, sizeof mapped - 1);
    control = at;
    return control;
}

/* Whether this call is one that fails. */
static int fails(struct control *c, const char *call, const char *path)
{
    if (strncmp(path, c->folder, strlen(c->folder)))
        return 0;
    int64_t number = __atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
    if (!c->at || c->mended || (c->lasting ? number < c->at : number != c->at))
        return 0;
    if (__atomic_add_fetch(&c->failed, 1, __ATOMIC_SEQ_CST) == 1)
        snprintf(c->what, sizeof c->what, "%s %s", call, path + strlen(c->folder));
    errno = c->error;
    return 1;
}

static int fails_on(const char *call, int fd)
{
    int before = errno;
    struct control *c = now();
    if (!c)
        return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0)
        return 0;
    path[length] = 0;
    return fails(c, call, path);
}

static int fails_at(const char *call, int folder, const char *name)
{
    int before = errno;
    struct control *c = now();
    if (!c || !name)
        return 0;
    char path[2 * PATH_MAX];
    if (name[0] == '/') {
        snprintf(path, sizeof path, "%s", name);
    } else {
        char link[64];
        if (folder == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, path, PATH_MAX);
        if (length <= 0) {
            errno = before;
            return 0;
        }
        snprintf(path + length, sizeof path - length, "/%s", name);
    }
    errno = before;
    return fails(c, call, path);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
    real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int torn(void)
{
    return control && control->torn;
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    if (fails_on("write", fd)) {
        int error = errno;
        if (torn())
            (void)!real(fd, data, size / 2);
        errno = error;
        return -1;
    }
    return real(fd, data, size);
}

#define AT_PLACE(name, offset_type) \
    ssize_t name(int fd, const void *data, size_t size, offset_type place) \
    { \
        REAL(name); \
        if (fails_on(#name, fd)) { \
            int error = errno; \
            if (torn()) \
                (void)!real(fd, data, size / 2, place); \
            errno = error; \
            return -1; \
        } \
        return real(fd, data, size, place); \
    }
AT_PLACE(pwrite, off_t)
AT_PLACE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    return fails_on("writev", fd) ? -1 : real(fd, parts, count);
}

#define ON_FD(name) \
    int name(int fd) \
    { \
        REAL(name); \
        return fails_on(#name, fd) ? -1 : real(fd); \
    }
ON_FD(fsync)
ON_FD(fdatasync)

#define TO_SIZE(name, size_type) \
    int name(int fd, size_type size) \
    { \
        REAL(name); \
        return fails_on(#name, fd) ? -1 : real(fd, size); \
    }
TO_SIZE(ftruncate, off_t)
TO_SIZE(ftruncate64, off64_t)

int rename(const char *old, const char *new)
{
    REAL(rename);
    return fails_at("rename", AT_FDCWD, new) ? -1 : real(old, new);
}

int renameat(int from, const char *old, int to, const char *new)
{
    REAL(renameat);
    return fails_at("renameat", to, new) ? -1 : real(from, old, to, new);
}

int link(const char *old, const char *new)
{
    REAL(link);
    return fails_at("link", AT_FDCWD, new) ? -1 : real(old, new);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    return fails_at("mkdir", AT_FDCWD, path) ? -1 : real(path, mode);
}

/* Whether to remove something can fail as well: a full disk lets everybody do that. */
static int takes_away(void)
{
    struct control *c = now();
    return c && c->error != ENOSPC;
}

int unlink(const char *path)
{
    REAL(unlink);
    return takes_away() && fails_at("unlink", AT_FDCWD, path) ? -1 : real(path);
}

int rmdir(const char *path)
{
    REAL(rmdir);
    return takes_away() && fails_at("rmdir", AT_FDCWD, path) ? -1 : real(path);
}

static int writes(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
}

#define MODE_OF(flags, last) \
    mode_t mode = 0; \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list rest; \
        va_start(rest, last); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        MODE_OF(flags, flags) \
        return writes(flags) && fails_at("open", AT_FDCWD, path) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        REAL(name); \
        MODE_OF(flags, flags) \
        return writes(flags) && fails_at("open", folder, path) ? -1 : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)
