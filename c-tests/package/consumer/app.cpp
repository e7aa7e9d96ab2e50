// app.cpp: the same in C++, with an exception on the way, since both runtimes unwind.
#include <cstdio>
#include <stdexcept>
#include <string>
#include <usysv.h>

namespace {
struct Message {
	long type;
	char text[16];
};

std::string roundtrip(int id)
{
	Message m{7, "through C++"};
	if (msgsnd(id, &m, sizeof m.text, 0) == -1)
		throw std::runtime_error("send");
	Message got{};
	if (msgrcv(id, &got, sizeof got.text, -7, IPC_NOWAIT) == -1)
		throw std::runtime_error("receive");
	return got.text;
}
} // namespace

int main()
{
	int id = msgget(IPC_PRIVATE, 0600);
	std::string text = roundtrip(id);
	if (msgctl(id, IPC_RMID, nullptr) == -1)
		return 1;
	try {
		roundtrip(id);
		return 2;
	} catch (const std::runtime_error &error) {
		std::printf("%s, after the end: %s\n", text.c_str(), error.what());
	}
}
