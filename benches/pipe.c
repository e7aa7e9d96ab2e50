/* pipe.c: pipes as a transport. A text is written and read in one piece; pieces of up to 4096 bytes do not mix. */
#define _GNU_SOURCE
#include "pairs.h"
#include <fcntl.h>

static size_t length;

int transport_make(int count, size_t size, int depth, int many)
{
	if (many && size > 4096)
		return -1;
	make_ends(count);
	length = size;
	for (int i = 0; i < count; i++) {
		if (pipe2(ends[i], O_CLOEXEC) == -1)
			return -1;
		if (count == 1)
			fcntl(ends[i][1], F_SETPIPE_SZ, (int)size * depth);
	}
	return depth;
}

void transport_send(int queue, const void *text, size_t size)
{
	must(write(ends[queue][1], text, size) == (ssize_t)size, "write");
}

void transport_receive(int queue, void *text, size_t room)
{
	(void)room;
	/* All texts of a run have one length; a long one may come in pieces. */
	for (size_t had = 0; had < length;) {
		ssize_t more = read(ends[queue][0], (char *)text + had, length - had);
		must(more > 0, "read");
		had += (size_t)more;
	}
}
