package registry

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"entgo.io/ent/dialect/sql"
	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/ent/sdkversion"
	"github.com/jeffersonwarrior/modelscan/internal/store"
)

// SDKInput describes a version of a generated SDK.
type SDKInput struct {
	ProviderID        uuid.UUID                    // a live provider
	Version           string                       // 1 to 128 characters; unique in its provider
	SDKPath           string                       // where the code lies, up to 2,048 characters
	GeneratedAt       time.Time                    // Defaults to now
	CompilationStatus sdkversion.CompilationStatus // Defaults to sdkversion.CompilationStatusPending
	TestResults       string                       // free text or JSON, up to 1,048,576 characters
	CodeHash          string                       // SHA-256 of the code in lower-case hex; empty: not known
}

var sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (in SDKInput) faults() faults {
	var f faults
	f.text("version", in.Version, 1, maxName)
	f.text("sdk_path", in.SDKPath, 0, maxURL)
	f.check(sdkversion.CompilationStatusValidator(in.CompilationStatus) == nil,
		"compilation_status is not one of pending, success, failed")
	f.time("generated_at", in.GeneratedAt)
	f.prose("test_results", in.TestResults, maxData)
	f.check(in.CodeHash == "" || sha256Hex.MatchString(in.CodeHash), "code_hash is not a SHA-256 in lower-case hex")
	return f
}

// CreateSDKVersion creates an SDK version. It returns [ErrInvalidData], [ErrForeignKey] for an
// unknown provider, or [ErrConflict] when the provider has the version.
func (r *Registry) CreateSDKVersion(ctx context.Context, in SDKInput) (sdk *ent.SDKVersion, err error) {
	if in.GeneratedAt.IsZero() {
		in.GeneratedAt = r.now()
	}
	in.GeneratedAt = store.Time(in.GeneratedAt)
	if in.CompilationStatus == "" {
		in.CompilationStatus = sdkversion.DefaultCompilationStatus
	}
	f := in.faults()
	if err := f.err(); err != nil {
		return nil, translate(ctx, "create SDK version", err)
	}
	err = r.writeAlone(ctx, fmt.Sprintf("create SDK version %q", in.Version), func(tx *ent.Client) error {
		if err := requireProvider(ctx, tx, in.ProviderID); err != nil {
			return err
		}
		sdk, err = tx.SDKVersion.Create().
			SetProviderID(in.ProviderID).SetVersion(in.Version).SetSdkPath(in.SDKPath).
			SetGeneratedAt(in.GeneratedAt).SetCompilationStatus(in.CompilationStatus).
			SetTestResults(in.TestResults).SetCodeHash(in.CodeHash).Save(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sdk.Unwrap(), nil
}

// ListSDKVersions returns the SDK versions of a live provider, newest first. Another provider has
// none.
func (r *Registry) ListSDKVersions(ctx context.Context, providerID uuid.UUID) ([]*ent.SDKVersion, error) {
	all, err := newestSDKs(r.client, providerID).All(ctx)
	return allTied(r, all), translate(ctx, "list SDK versions", err)
}

// LatestSDKVersion returns the SDK version of a live provider that was generated last, or
// [ErrNotFound].
func (r *Registry) LatestSDKVersion(ctx context.Context, providerID uuid.UUID) (*ent.SDKVersion, error) {
	sdk, err := newestSDKs(r.client, providerID).First(ctx)
	return tied(r, sdk), translate(ctx, "latest SDK version", err)
}

func newestSDKs(client *ent.Client, providerID uuid.UUID) *ent.SDKVersionQuery {
	return client.SDKVersion.Query().
		Where(sdkversion.ProviderID(providerID), sdkversion.HasProviderWith(provider.DeletedAtIsNil())).
		Order(sdkversion.ByGeneratedAt(sql.OrderDesc()), sdkversion.ByID(sql.OrderDesc()))
}
