package shard

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// fuzzLimit makes limits something that small inputs meet.
const fuzzLimit = 4096

// checkOutcome holds for whatever the bytes of a shard are.
func checkOutcome(t *testing.T, ref Ref) {
	t.Helper()
	all := readAll(ref, ReadOptions{MaxMemberBytes: fuzzLimit})
	seen := map[string]bool{}
	for _, ex := range all.Good {
		if err := SafeKey(ex.Key); err != nil || seen[ex.Key] {
			t.Errorf("example with key %q (again: %t): %v", ex.Key, seen[ex.Key], err)
		}
		seen[ex.Key] = true
		total := len(ex.Image)
		for _, member := range ex.Extra {
			total += len(member)
		}
		if len(ex.Image) == 0 || ex.ImageExt == "" || total > sampleMembers*fuzzLimit {
			t.Errorf("example %q with %d bytes of image (%q), %d in all", ex.Key, len(ex.Image), ex.ImageExt, total)
		}
	}
	for _, bad := range all.Bad {
		if key := bad.Example.Key; key != "" && SafeKey(key) != nil {
			t.Errorf("reject with the unsafe key %q", key)
		}
	}
	if all.Err != nil || ref.Format == FormatTFRecord && len(seen) < len(all.Good)+len(all.Bad) {
		return // of a TFRecord, ranges do not know each other's keys
	}
	// Ranges give the same as the whole.
	var parts outcome
	for i := range int64(3) {
		r := ref
		r.Offset = ref.Size / 3 * i
		r.Length = max(1, ref.Size/3*(i+1)-r.Offset)
		if i == 2 {
			r.Length = ref.Size
		}
		part := readAll(r, ReadOptions{MaxMemberBytes: fuzzLimit})
		if part.Err != nil {
			t.Fatalf("range %d: %v", i, part.Err)
		}
		parts.Good, parts.Bad = append(parts.Good, part.Good...), append(parts.Bad, part.Bad...)
	}
	if diff := cmp.Diff(keys(all.Good), keys(parts.Good)); diff != "" || len(all.Bad) != len(parts.Bad) {
		t.Errorf("%d rejects in all, %d in ranges; examples (-all +ranges)\n%s", len(all.Bad), len(parts.Bad), diff)
	}
}

func FuzzTar(f *testing.F) {
	python, err := os.ReadFile("testdata/python/webdataset.tar")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(python)
	f.Add(makeTar(f, image("a.jpg"), entry{name: "a.mask.png", data: "m"}, image("../../x.jpg"), image("b.jpg"), image("a.png")))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := put(t, "mem://fuzz/a.tar", data)
		checkOutcome(t, Ref{URL: o.URL, Size: o.Size, Format: FormatWebDataset})
	})
}

func FuzzTFRecord(f *testing.F) {
	python, err := os.ReadFile("testdata/python/deeplab.tfrecord")
	if err != nil {
		f.Fatal(err)
	}
	// Checksums keep a fuzzer out: fix makes records of what lies between marks.
	f.Add(python, false)
	f.Add([]byte(fmt.Sprintf("%s--%s--%s", named("a.jpg"), named("b.jpg"), named("a.jpg"))), true)
	f.Fuzz(func(t *testing.T, data []byte, fix bool) {
		if fix {
			var framed []byte
			for piece := range bytes.SplitSeq(data, []byte("--")) {
				framed = append(framed, frame(piece)...)
			}
			data = framed
		}
		o := put(t, "mem://fuzz/a.tfrecord", data)
		checkOutcome(t, Ref{URL: o.URL, Size: o.Size, Format: FormatTFRecord})
	})
}

// FuzzExample compares with the protobuf runtime.
func FuzzExample(f *testing.F) {
	f.Add(named("a.jpg"))
	f.Add(rawExample("a", "1", "a", "2", "", ""))
	ex := TFExample{Key: "k", Image: []byte(pngBytes), Mask: []byte(pngBytes), Height: 3, Width: 4}
	data, err := ex.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	descriptor := exampleDescriptor(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeFeatures(slices.Clip(bytes.Clone(data)))
		message := dynamicpb.NewMessage(descriptor)
		if !unmarshals(data, message) {
			return // it also refuses names that are not UTF-8, which are judged later here
		}
		if err != nil {
			t.Fatalf("the protobuf runtime reads what gives us %v", err)
		}
		want := map[string][]byte{}
		entries := message.Get(descriptor.Fields().ByName("features")).Message()
		entries.Get(entries.Descriptor().Fields().ByName("feature")).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			feature := v.Message()
			list := feature.Get(feature.Descriptor().Fields().ByName("bytes_list")).Message()
			if values := list.Get(list.Descriptor().Fields().ByName("value")).List(); values.Len() == 1 {
				want[k.String()] = append([]byte{}, values.Get(0).Bytes()...)
			}
			return true
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-runtime +shard)\n%s", diff)
		}
	})
}

// unmarshals tells whether the runtime has a verdict on data and likes it. On a
// map entry with a good key and then one of another wire type, its version for
// dynamic messages panics.
func unmarshals(data []byte, into proto.Message) (ok bool) {
	defer func() { ok = recover() == nil && ok }()
	return proto.Unmarshal(data, into) == nil
}

// TestEncodedExample reads what TFRecordWriter writes with the protobuf runtime.
func TestEncodedExample(t *testing.T) {
	ex := TFExample{Key: "a/k", Image: []byte(jpegBytes), Mask: []byte(pngBytes), Height: 360, Width: 480}
	data, err := ex.encode()
	if err != nil {
		t.Fatal(err)
	}
	descriptor := exampleDescriptor(t)
	message := dynamicpb.NewMessage(descriptor)
	if err := proto.Unmarshal(data, message); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	entries := message.Get(descriptor.Fields().ByName("features")).Message()
	entries.Get(entries.Descriptor().Fields().ByName("feature")).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		v.Message().Range(func(kind protoreflect.FieldDescriptor, list protoreflect.Value) bool {
			values := list.Message().Get(list.Message().Descriptor().Fields().ByName("value")).List()
			for i := range values.Len() {
				text := fmt.Sprint(values.Get(i).Interface())
				if b, ok := values.Get(i).Interface().([]byte); ok {
					text = string(b)
				}
				got[k.String()] += fmt.Sprintf("%s %s", kind.Name(), text)
			}
			return true
		})
		return true
	})
	want := map[string]string{
		"image/encoded":                    "bytes_list " + jpegBytes,
		"image/filename":                   "bytes_list a/k.jpg",
		"image/format":                     "bytes_list jpeg",
		"image/height":                     "int64_list 360",
		"image/width":                      "int64_list 480",
		"image/segmentation/class/encoded": "bytes_list " + pngBytes,
		"image/segmentation/class/format":  "bytes_list png",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// exampleDescriptor is tensorflow/core/example/{example,feature}.proto.
func exampleDescriptor(t testing.TB) protoreflect.MessageDescriptor {
	type (
		msg  = descriptorpb.DescriptorProto
		fld  = descriptorpb.FieldDescriptorProto
		kind = descriptorpb.FieldDescriptorProto_Type
	)
	field := func(name string, n int32, k kind, typeName string, repeated bool) *fld {
		f := &fld{Name: proto.String(name), Number: proto.Int32(n), Type: k.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if typeName != "" {
			f.TypeName = proto.String(".tensorflow." + typeName)
		}
		if repeated {
			f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}
		return f
	}
	const message = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	list := func(name string, k kind) *msg {
		return &msg{Name: proto.String(name), Field: []*fld{field("value", 1, k, "", true)}}
	}
	feature := &msg{Name: proto.String("Feature"), OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: proto.String("kind")}}}
	for i, name := range []string{"Bytes", "Float", "Int64"} {
		f := field([]string{"bytes_list", "float_list", "int64_list"}[i], int32(i+1), message, name+"List", false)
		f.OneofIndex = proto.Int32(0)
		feature.Field = append(feature.Field, f)
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("example.proto"), Package: proto.String("tensorflow"), Syntax: proto.String("proto3"),
		MessageType: []*msg{
			{Name: proto.String("Example"), Field: []*fld{field("features", 1, message, "Features", false)}},
			{
				Name:  proto.String("Features"),
				Field: []*fld{field("feature", 1, message, "Features.FeatureEntry", true)},
				NestedType: []*msg{{
					Name: proto.String("FeatureEntry"),
					Field: []*fld{
						field("key", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING, "", false),
						field("value", 2, message, "Feature", false),
					},
					Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
				}},
			},
			feature,
			list("BytesList", descriptorpb.FieldDescriptorProto_TYPE_BYTES),
			list("FloatList", descriptorpb.FieldDescriptorProto_TYPE_FLOAT),
			list("Int64List", descriptorpb.FieldDescriptorProto_TYPE_INT64),
		},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().ByName("Example")
}
