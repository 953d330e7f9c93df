/*
 * A storage on which one system call fails: preloaded before the C library (LD_PRELOAD), it counts the calls that name
 * or use something below one folder, and lets the one with the wanted number fail.
 *
 *   faults_below(folder, number, error)  from now on; number 0: count only. Returns how many calls were counted so far.
 *   faults_pause(yes)                    calls are neither counted nor fail until it is undone: those of Megatron itself
 *   faults_name()                        the call that failed, and the path; "" if none did
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char below[4096], failed[16384];
static long wanted, count;
static int error, paused;

long faults_below(const char *folder, long number, int with)
{
	long counted = count;
	snprintf(below, sizeof below, "%s", folder);
	failed[0] = 0;
	count = 0;
	wanted = number;
	error = with;
	return counted;
}

void faults_pause(int yes) { paused += yes ? 1 : -1; }

const char *faults_name(void) { return failed; }

static int is_below(const char *path)
{
	size_t length = strlen(below);
	return length && !strncmp(path, below, length) && (path[length] == '/' || !path[length]);
}

/* Whether this call is the one that fails; errno is set then. `name` may be relative to the folder `descriptor`. */
static int fails(const char *call, int descriptor, const char *name)
{
	char link[64], path[4096] = "", whole[8192];
	if (!below[0] || paused)
		return 0;
	if (!name || name[0] != '/') {
		int before = errno;
		snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
		ssize_t length = descriptor == AT_FDCWD ? -1 : readlink(link, path, sizeof path - 1);
		errno = before;
		if (length < 0)
			return 0;
		path[length] = 0;
	}
	snprintf(whole, sizeof whole, "%s%s%s", path, name && path[0] && name[0] ? "/" : "", name ? name : "");
	if (!is_below(whole) || ++count != wanted)
		return 0;
	snprintf(failed, sizeof failed, "%s %s", call, whole);
	errno = error;
	return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAPS(type, name, parameters, arguments, descriptor, path, failure) \
	type name parameters \
	{ \
		static __typeof__(&name) real; \
		if (!real) \
			real = REAL(name); \
		return fails(#name, descriptor, path) ? failure : real arguments; \
	}
#define OPENS(name) \
	int name(const char *path, int flags, ...) \
	{ \
		static int (*real)(const char *, int, ...); \
		va_list more; \
		va_start(more, flags); \
		mode_t mode = va_arg(more, mode_t); \
		va_end(more); \
		if (!real) \
			real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
		return fails(#name, AT_FDCWD, path) ? -1 : real(path, flags, mode); \
	}
#define OPENS_AT(name) \
	int name(int folder, const char *path, int flags, ...) \
	{ \
		static int (*real)(int, const char *, int, ...); \
		va_list more; \
		va_start(more, flags); \
		mode_t mode = va_arg(more, mode_t); \
		va_end(more); \
		if (!real) \
			real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name); \
		return fails(#name, folder, path) ? -1 : real(folder, path, flags, mode); \
	}

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
WRAPS(ssize_t, read, (int fd, void *to, size_t size), (fd, to, size), fd, NULL, -1)
WRAPS(ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size), fd, NULL, -1)
WRAPS(int, fsync, (int fd), (fd), fd, NULL, -1)
WRAPS(int, fdatasync, (int fd), (fd), fd, NULL, -1)
WRAPS(int, rename, (const char *from, const char *to), (from, to), AT_FDCWD, from, -1)
WRAPS(int, renameat, (int at, const char *from, int to_at, const char *to), (at, from, to_at, to), at, from, -1)
WRAPS(int, link, (const char *from, const char *to), (from, to), AT_FDCWD, to, -1)
WRAPS(int, linkat, (int at, const char *from, int to_at, const char *to, int flags), (at, from, to_at, to, flags),
	to_at, to, -1)
WRAPS(int, symlink, (const char *from, const char *to), (from, to), AT_FDCWD, to, -1)
WRAPS(int, symlinkat, (const char *from, int at, const char *to), (from, at, to), at, to, -1)
WRAPS(int, unlink, (const char *path), (path), AT_FDCWD, path, -1)
WRAPS(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), at, path, -1)
WRAPS(int, rmdir, (const char *path), (path), AT_FDCWD, path, -1)
WRAPS(int, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, -1)
WRAPS(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), at, path, -1)
WRAPS(int, stat, (const char *path, struct stat *to), (path, to), AT_FDCWD, path, -1)
WRAPS(int, lstat, (const char *path, struct stat *to), (path, to), AT_FDCWD, path, -1)
WRAPS(int, fstat, (int fd, struct stat *to), (fd, to), fd, NULL, -1)
WRAPS(int, fstatat, (int at, const char *path, struct stat *to, int flags), (at, path, to, flags), at, path, -1)
WRAPS(int, stat64, (const char *path, struct stat64 *to), (path, to), AT_FDCWD, path, -1)
WRAPS(int, lstat64, (const char *path, struct stat64 *to), (path, to), AT_FDCWD, path, -1)
WRAPS(int, fstat64, (int fd, struct stat64 *to), (fd, to), fd, NULL, -1)
WRAPS(int, fstatat64, (int at, const char *path, struct stat64 *to, int flags), (at, path, to, flags), at, path, -1)
WRAPS(int, access, (const char *path, int mode), (path, mode), AT_FDCWD, path, -1)
WRAPS(DIR *, opendir, (const char *path), (path), AT_FDCWD, path, NULL)
WRAPS(DIR *, fdopendir, (int fd), (fd), fd, NULL, NULL)
WRAPS(struct dirent *, readdir, (DIR *folder), (folder), dirfd(folder), NULL, NULL)
WRAPS(struct dirent64 *, readdir64, (DIR *folder), (folder), dirfd(folder), NULL, NULL)
WRAPS(int, ftruncate, (int fd, off_t size), (fd, size), fd, NULL, -1)
WRAPS(int, fchmod, (int fd, mode_t mode), (fd, mode), fd, NULL, -1)
WRAPS(int, chmod, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path, -1)
WRAPS(int, utimensat, (int at, const char *path, const struct timespec times[2], int flags), (at, path, times, flags),
	at, path, -1)
