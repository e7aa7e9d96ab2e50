// boost.cpp: Boost.Interprocess message_queue as a transport.
#include "bench.h"
#include <boost/interprocess/ipc/message_queue.hpp>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

using boost::interprocess::message_queue;

static std::vector<std::unique_ptr<message_queue>> queues;
static std::vector<std::string> names;

int transport_make(int count, size_t size, int depth, int)
{
	for (int i = 0; i < count; i++) {
		names.push_back("usysv-bench-" + std::to_string(getpid()) + "-" + std::to_string(i));
		queues.emplace_back(new message_queue(boost::interprocess::create_only, names.back().c_str(),
						      static_cast<size_t>(depth), size));
	}
	return depth;
}

void transport_join(int, int) {}

void transport_send(int queue, const void *text, size_t size)
{
	queues[static_cast<size_t>(queue)]->send(text, size, 0);
}

void transport_receive(int queue, void *text, size_t room)
{
	size_t size;
	unsigned priority;
	queues[static_cast<size_t>(queue)]->receive(text, room, size, priority);
}

void transport_leave() {}

void transport_drop()
{
	queues.clear();
	for (const auto &name : names)
		message_queue::remove(name.c_str());
	names.clear();
}

double transport_bytes()
{
	double bytes = 0;
	for (const auto &name : names) {
		struct stat there;
		must(stat(("/dev/shm/" + name).c_str(), &there) == 0, "stat");
		bytes += static_cast<double>(there.st_blocks) * 512;
	}
	return bytes;
}
